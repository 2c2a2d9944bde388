// Reads one state machine definition (JSON) from stdin and prints a JSON list of what is wrong with it:
// [{"message", "line"}] from AWS's own language service, then [{"message", "path"}] for expressions.
// An empty list means nothing was found. Exit code 0 either way: what was found is the result, not a failure.
"use strict";

const { readFileSync } = require("node:fs");
const { TextDocument, getLanguageService } = require("amazon-states-language-service");
const jsonata = require("jsonata");

// The language service leaves what stands between {% and %} unread, so each expression is parsed here as well.
function* brokenExpressions(value, path) {
  if (typeof value === "string") {
    const found = /^\{%(.*)%\}$/s.exec(value);
    if (!found) return;
    try {
      jsonata(found[1]);
    } catch (error) {
      yield { message: `JSONata: ${error.message} (at character ${error.position})`, path };
    }
  } else if (value !== null && typeof value === "object") {
    for (const [key, inner] of Object.entries(value)) yield* brokenExpressions(inner, `${path}/${key}`);
  }
}

async function main() {
  const text = readFileSync(0, "utf8");
  const document = TextDocument.create("definition.asl.json", "asl", 1, text);
  const service = getLanguageService({});
  const diagnostics = await service.doValidation(document, service.parseJSONDocument(document));
  const found = diagnostics.map(({ message, range }) => ({ message, line: range.start.line + 1 }));
  let definition = null;
  try {
    definition = JSON.parse(text);
  } catch {
    // The language service has said so already.
  }
  process.stdout.write(JSON.stringify([...found, ...brokenExpressions(definition, "")]) + "\n");
}

main();
