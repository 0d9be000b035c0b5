// Has openapi-typescript and hey-api make clients of the served document: into the folder, from the document in it.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@hey-api/openapi-ts";
import openapiTS, { astToString } from "openapi-typescript";

const folder = process.argv[2];
const document = join(folder, "served.json");

writeFileSync(join(folder, "served.ts"), astToString(await openapiTS(new URL(`file://${document}`))));
await createClient({
  input: document,
  output: { path: join(folder, "hey"), entryFile: false },
  plugins: ["@hey-api/typescript", "@hey-api/sdk", "@hey-api/client-fetch"],
  logs: { level: "silent" },
});
