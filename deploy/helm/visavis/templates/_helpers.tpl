{{- define "visavis.name" -}}
{{- .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "visavis.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "visavis.selector" -}}
app.kubernetes.io/name: {{ include "visavis.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "visavis.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "visavis.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: server
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* "https" or "http": the scheme of the probes and of the metrics. */ -}}
{{- define "visavis.scheme" -}}
{{- ternary "http" "https" .Values.insecure -}}
{{- end -}}

{{- /* Fails with a sentence for what a schema can't express. */ -}}
{{- define "visavis.check" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: name the image of the server" -}}
{{- end -}}
{{- range $name := list "models" "grpc" "http" "metrics" "tls_certificate" "tls_private_key" "tokens" "insecure" "open_health" "grace_s" "watch_interval_s" "log_format" -}}
{{- if hasKey $.Values.settings $name -}}
{{- fail (printf "settings.%s: the chart sets it; see the values beside `settings`" $name) -}}
{{- end -}}
{{- end -}}
{{- if not (or .Values.models.volume .Values.pull.source) -}}
{{- fail "models.volume is empty: give the volume that holds the models, such as {persistentVolumeClaim: {claimName: models}}, or pull.source" -}}
{{- end -}}
{{- if and .Values.pull.watchSeconds (not .Values.pull.source) -}}
{{- fail "pull.watchSeconds needs pull.source" -}}
{{- end -}}
{{- if and .Values.pull.source .Values.models.volume.image -}}
{{- fail "pull.source can't write into models.volume: an image is read-only; leave one of them out" -}}
{{- end -}}
{{- if and (not .Values.insecure) (not (and .Values.tls.secret .Values.tokens.secret)) -}}
{{- fail "the server listens on a public address: name tls.secret and tokens.secret, or set insecure: true if a mesh encrypts and authenticates" -}}
{{- end -}}
{{- if and .Values.insecure (or .Values.tls.secret .Values.tokens.secret) -}}
{{- fail "insecure: true contradicts tls.secret and tokens.secret: leave one of them out" -}}
{{- end -}}
{{- if and .Values.autoscaling.kind (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail "autoscaling.maxReplicas is below autoscaling.minReplicas" -}}
{{- end -}}
{{- end -}}

{{- /* A container that pulls models, once or again and again. Takes the root, the name, and seconds. */ -}}
{{- define "visavis.pull" -}}
{{- $pull := .root.Values.pull -}}
- name: {{ .name }}
  image: {{ $pull.image | default (printf "%s:%s" .root.Values.image.repository (.root.Values.image.tag | default .root.Chart.AppVersion)) | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - pull
    - {{ $pull.source | quote }}
    - --out=/models
    {{- range $pull.models }}
    - --model={{ . }}
    {{- end }}
    {{- if $pull.delete }}
    - --delete
    {{- end }}
    {{- if $pull.verifyKeySecret }}
    - --verify-key=/etc/visavis/pull/public.pem
    {{- end }}
    {{- if .seconds }}
    - --watch={{ .seconds }}
    - --log-format=json
    {{- end }}
    {{- range $pull.args }}
    - {{ . | quote }}
    {{- end }}
  env:
    - {name: HOME, value: /tmp}
    {{- with $pull.env }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- with $pull.envFrom }}
  envFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
  resources: {{- toYaml $pull.resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
  volumeMounts:
    - {name: models, mountPath: /models}
    - {name: tmp, mountPath: /tmp}
    {{- if $pull.dockerConfigSecret }}
    - {name: docker-config, mountPath: /tmp/.docker, readOnly: true}
    {{- end }}
    {{- if $pull.verifyKeySecret }}
    - {name: verify-key, mountPath: /etc/visavis/pull, readOnly: true}
    {{- end }}
{{- end -}}
