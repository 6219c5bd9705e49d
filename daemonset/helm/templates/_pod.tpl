{{- define "nodewall.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "nodewall.settings" -}}
ENGINE: {{ .Values.engine | quote }}
IPTABLES: {{ .Values.iptables.variant | quote }}
DENY_MODE: {{ .Values.denyMode | quote }}
HOLD: {{ .Values.hold | quote }}
LOG_LEVEL: {{ .Values.logLevel | quote }}
{{- end }}

{{- define "nodewall.hostPath" -}}
- name: {{ .name }}
  hostPath:
    path: {{ .path }}
    type: {{ .type }}
{{- end }}
