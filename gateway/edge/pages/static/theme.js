// Light or dark, as the system has it or as somebody wished. A classic script in the head, before anything is painted:
// a module would come after the first paint, which at night is a flash.
(() => {
  const KEY = "hiroba.theme";
  const systems = (scheme) => `(prefers-color-scheme: ${scheme})`;

  // What is for one scheme only (data-scheme) is for all media, or for none; without a wish for the system's.
  function apply(wished) {
    for (const part of document.querySelectorAll("[data-scheme]")) {
      const { scheme } = part.dataset;
      const known = wished === "light" || wished === "dark";
      part.media = !known ? systems(scheme) : wished === scheme ? "all" : "not all";
    }
  }

  try {
    apply(localStorage.getItem(KEY));
  } catch {
    // Storage is blocked: as the system has it.
  }
  window.addEventListener("storage", ({ key, newValue }) => key === KEY && apply(newValue));
})();
