// First on the page: whatever fails after this is kept on <html data-errors="…"> for tests and for bug reports.
(() => {
  "use strict";
  const root = document.documentElement;
  const note = (message) => {
    root.dataset.errors = root.dataset.errors ? `${root.dataset.errors}\n${message}` : String(message);
  };
  window.addEventListener("error", (event) => note(event.message));
  window.addEventListener("unhandledrejection", (event) => note(event.reason));
  document.addEventListener("securitypolicyviolation", (event) => note(`blocked: ${event.violatedDirective}`));
})();
