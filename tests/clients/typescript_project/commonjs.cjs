const visavis = require("@visavis/client");
const steps = require("./steps.cjs");

steps(visavis, process.argv.slice(2)).then((seen) => console.log(JSON.stringify(seen)));
