// Lints the served OpenAPI document (standard input) with Redocly, and events.yaml with the AsyncAPI parser.
// Exits 1 when either finds an error; warnings, such as tags without a description, are Tether's own.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import { createConfig, lintFromString } from "@redocly/openapi-core";

const config = await createConfig({ extends: ["recommended"] });
const problems = await lintFromString({ source: readFileSync(0, "utf8"), absoluteRef: "served.json", config });
const events = readFileSync(new URL("../../../openapi/events.yaml", import.meta.url), "utf8");
const { document, diagnostics } = await new Parser().parse(events);

const errors = [
  ...problems.filter(({ severity }) => severity === "error").map(({ message, location }) => `served: ${location[0]?.pointer} ${message}`),
  ...diagnostics.filter(({ severity }) => severity === 0).map(({ message, path }) => `events.yaml: ${path.join(".")} ${message}`),
];
errors.forEach((error) => console.error(error));
console.log(`Redocly: ${problems.length} findings; AsyncAPI: ${diagnostics.length} findings; errors: ${errors.length}`);
process.exit(errors.length || !document ? 1 : 0);
