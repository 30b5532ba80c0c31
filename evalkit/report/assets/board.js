// The leaderboard: sorting by DataTables, filters, and an address that brings both back.
"use strict";
(() => {
  const form = document.getElementById("filters");
  const tables = [...document.querySelectorAll("table.sortable")].map((node) => ({
    node,
    api: new DataTable(node, {
      layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
      paging: false,
      order: [],
      autoWidth: false,
    }),
  }));
  if (!form || !tables.length) return;

  const chosen = () => filters.chosen(form);
  const passes = (row, wish) =>
    (!wish.where || row.dataset.where === wish.where) &&
    (!wish.trained || row.dataset.trained === wish.trained) &&
    (!wish.size || row.dataset.size === wish.size) &&
    (!wish.complete || row.dataset.complete !== "no");

  function apply() {
    const wish = chosen();
    let shown = 0;
    for (const { api } of tables) {
      api.search.fixed("filters", (_text, _data, index) => passes(api.row(index).node(), wish));
      api.search(wish.q || "").draw();
      shown += api.rows({ search: "applied" }).count();
    }
    document.getElementById("shown").textContent = shown ? "" : "Nothing fits these filters.";
    remember(wish);
  }

  function remember(wish) {
    const state = new URLSearchParams(wish);
    tables.forEach(({ node, api }) => {
      const [first] = api.order();
      if (first && first[1]) state.set(`sort-${node.id}`, `${first[0]}-${first[1]}`);
    });
    history.replaceState(null, "", state.size ? `#${state}` : location.pathname + location.search);
  }

  function restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    filters.fill(form, state);
    for (const { node, api } of tables) {
      const sort = /^(\d+)-(asc|desc)$/.exec(state.get(`sort-${node.id}`) || "");
      if (sort && Number(sort[1]) < api.columns().count()) api.order([[Number(sort[1]), sort[2]]]);
    }
    apply();
  }

  form.hidden = false;
  restore();
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  for (const { api } of tables) api.on("order", () => remember(chosen()));
  addEventListener("hashchange", restore);
  document.documentElement.dataset.ready = "yes";
})();
