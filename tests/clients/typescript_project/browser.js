// Bundled for a page.
import { VisavisClient, VisavisError } from "@visavis/client";

Object.assign(globalThis, { visavis: { VisavisClient, VisavisError } });
