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
