// Filters that an address brings back: a form's fields from and to the part of it behind the hash.
"use strict";
const filters = {
  // what is chosen: {name: value} of the fields that say something
  chosen: (form) => Object.fromEntries([...new FormData(form)].filter(([, value]) => value)),

  fill(form, state) {
    for (const field of form.elements) {
      if (!field.name) continue;
      const value = state.get(field.name) || "";
      if (field.type === "checkbox") field.checked = value === field.value;
      else field.value = value;
      if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = "";
    }
  },
};
