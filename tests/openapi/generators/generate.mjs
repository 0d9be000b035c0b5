// Has Modelina write what events.yaml says, as TypeScript and as Python: models.ts and models.py in the folder that is named.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PythonGenerator, TypeScriptGenerator } from "@asyncapi/modelina";

const events = readFileSync(new URL("../../../openapi/events.yaml", import.meta.url), "utf8");
const IMPORTS = "from __future__ import annotations\nfrom enum import Enum\nfrom typing import Any, Dict, List, Union\n";

for (const [file, head, generator] of [
  ["models.ts", "", new TypeScriptGenerator({ modelType: "interface" })],
  ["models.py", IMPORTS, new PythonGenerator()],
]) {
  const models = await generator.generate(events);
  writeFileSync(join(process.argv[2], file), `${head}${models.map(({ result }) => result).join("\n\n")}\n`);
}
