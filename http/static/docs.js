// The page of the calls: Swagger UI draws them from the service's own openapi.json.

import { get } from "./api.js";
import { $, meta, write } from "./dom.js";

/** The document, as this page is to show it. */
function shown(spec) {
  // Where the page is, the calls are: a proxy may put a path before both.
  spec.servers = [{ url: new URL(".", location).pathname.replace(/\/$/, "") || "/" }];
  for (const path of Object.values(spec.paths)) {
    for (const operation of Object.values(path)) operation.parameters?.filter((each) => !each.required).forEach(empty);
  }
  return spec;
}

/** Swagger UI fills in examples and sends them: an Idempotency-Key that everybody has, a filter nobody asked for. */
function empty(parameter) {
  parameter.description = `${parameter.description} For example \`${parameter.example}\`.`;
  delete parameter.example;
}

/** Swagger UI puts a link with a call's path into the button that opens the call; the button alone sets the address, too. */
function withoutLinksInButtons({ React }) {
  return { components: { DeepLink: ({ text }) => React.createElement("span", null, text) } };
}

// What Swagger UI does not tell those who listen: attributes of what it draws.
const UNSAID = {
  ".information-container": () => ({ role: "region", "aria-label": "The service" }),
  ".info .title": () => ({ "aria-level": 2 }), // the page has a heading of its own
  "textarea.body-param__text": () => ({ "aria-label": "Body" }),
  "tr[data-param-name] select": (select) => ({ "aria-label": select.closest("tr").dataset.paramName }),
  ".responses-table[role=region]": (table) => ({ "aria-label": table.id.replaceAll("_", " ") }),
  "pre.curl, pre.microlight": () => ({ tabindex: 0 }), // they scroll
};

function tellUnsaid() {
  for (const [selector, attributes] of Object.entries(UNSAID)) {
    for (const node of $("main").querySelectorAll(selector)) {
      for (const [name, value] of Object.entries(attributes(node))) node.setAttribute(name, value);
    }
  }
}
new MutationObserver(tellUnsaid).observe($("main"), { childList: true, subtree: true });

/** Swagger UI is told of a dark theme by a class. */
function followTheme(dark) {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", followTheme);
followTheme(dark);

try {
  const spec = shown(await get("openapi.json"));
  window.SwaggerUIBundle({
    domNode: $("main"),
    spec,
    tryItOutEnabled: true,
    deepLinking: true,
    plugins: [withoutLinksInButtons],
    defaultModelsExpandDepth: 0,
    validatorUrl: null, // it would ask another host
    syntaxHighlight: { activated: false }, // it takes some four seconds for a thousand rows
  });
} catch (error) {
  write($("main"), `The calls of the ${meta("service")} service can't be shown: ${error.message}`);
}
