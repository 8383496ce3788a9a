import * as visavis from "@visavis/client";

import steps from "./steps.cjs";

console.log(JSON.stringify(await steps(visavis, process.argv.slice(2))));
