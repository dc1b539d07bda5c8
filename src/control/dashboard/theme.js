// Sets the colours before the first paint: those that were chosen, else the system's. A script of its own, in the head,
// since the page's policy allows no script inside the page.

{
  const chosen = localStorage.getItem('edgeproxy-theme');
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
}
