// Reads custom resources, a JSON list, from standard input; exits with 1 if one is invalid.
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const KINDS = { ScaledObject, PrometheusRule, ServiceMonitor };

let text = "";
for await (const piece of process.stdin) text += piece;
for (const resource of JSON.parse(text)) {
  const Kind = KINDS[resource.kind];
  if (!Kind) throw new Error(`no schema for ${resource.kind}`);
  new Kind(resource).validate();
}
