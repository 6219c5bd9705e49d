{{- /* What Helm's conventions ask for, on every object; not on pods: a new chart alone would replace them. */}}
{{- define "nodewall.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* What would only be seen on the nodes, or never. The role is of the cluster: whoever has it has the agents. */}}
{{- define "nodewall.checks" -}}
{{- if and (contains "iptables" .Values.engine) (not .Values.iptables.enabled) }}
{{- fail (printf "engine %s needs iptables.enabled: true, which lets the agent use iptables" .Values.engine) }}
{{- end }}
{{- $role := lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "nodewall-agent" }}
{{- $owner := dig "metadata" "annotations" (dict) $role }}
{{- $name := get $owner "meta.helm.sh/release-name" }}
{{- $namespace := get $owner "meta.helm.sh/release-namespace" }}
{{- if and $name (ne (printf "%s/%s" $namespace $name) (printf "%s/%s" .Release.Namespace .Release.Name)) }}
{{- fail (printf "a node takes one agent, and release %s in namespace %s puts one on every node already: change that one (helm upgrade %s -n %s), or uninstall it first" $name $namespace $name $namespace) }}
{{- end }}
{{- end }}

{{- define "nodewall.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "nodewall.settings" -}}
ENGINE: {{ .Values.engine | quote }}
IPTABLES: {{ .Values.iptables.variant | quote }}
DENY_MODE: {{ .Values.denyMode | quote }}
HOLD: {{ .Values.hold | quote }}
AUDIT_NAMESPACES: {{ join " " .Values.audit.namespaces | quote }}
AUDIT_POLICIES: {{ join " " .Values.audit.policies | quote }}
ALLOW_AUDIT_ANNOTATIONS: {{ .Values.audit.allowAnnotations | quote }}
LOG_LEVEL: {{ .Values.logLevel | quote }}
HUBBLE_ADDRESS: {{ ternary (printf "%s:%v" .Values.hubble.address .Values.hubble.port) "none" .Values.hubble.enabled | quote }}
OTLP_ENDPOINT: {{ .Values.otlp.endpoint | quote }}
OTLP_FLOWS: {{ .Values.otlp.flows | quote }}
{{- end }}

{{- define "nodewall.hostPath" -}}
- name: {{ .name }}
  hostPath:
    path: {{ .path }}
    type: {{ .type }}
{{- end }}
