"""Other servers are asked, above all the site whose users and rules these are. Knows no socket and no room."""
