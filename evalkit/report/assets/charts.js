// The charts: Vega-Lite specifications from the page's data, drawn without evaluating code.
"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("charts-data").textContent);
  const options = {
    ast: true, // expressions are interpreted, so that the page's policy need not allow `eval`
    renderer: "svg",
    actions: false,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  };
  const drawn = specs.map(({ id, spec }) => vegaEmbed(document.getElementById(id), spec, options));
  Promise.all(drawn).then(() => {
    document.documentElement.dataset.ready = "yes";
  });
})();
