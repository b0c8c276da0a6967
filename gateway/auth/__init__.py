"""Who comes in, and with what rights: tokens, the site's word, guests. Knows no socket and no room."""
