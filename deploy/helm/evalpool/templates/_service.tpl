{{/*
One of the six services: a headless Service and a StatefulSet with a volume for each pod.
Takes a dict of `root` (the top scope) and `service` (its name).

Each of them is one pod, as SQLite and Chroma are for one process; the workers are as many as have
addresses. A service ignores environment variables of settings that it does not have, so all get the
same list of peers.
*/}}
{{- define "evalpool.service" -}}
{{- $root := .root -}}
{{- $service := .service -}}
{{- $values := $root.Values -}}
{{- $own := mustMergeOverwrite (deepCopy $values.defaults) (get $values.services $service) -}}
{{- $ports := include "evalpool.ports" $root | fromYaml -}}
{{- $port := int (get $ports $service) -}}
{{- $metricsPort := add $port 4000 -}}
{{- $fullname := include "evalpool.fullname" $root -}}
{{- $name := printf "%s-%s" $fullname $service -}}
{{- $prefix := printf "EVALPOOL_%s" (upper $service) -}}
{{- $isWorker := eq $service "worker" -}}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels:
    {{- include "evalpool.labels" . | nindent 4 }}
spec:
  # Headless: clients see each pod, and pods have names of their own.
  clusterIP: None
  {{- if $isWorker }}
  # A worker offers itself to the router before it is ready for others.
  publishNotReadyAddresses: true
  {{- end }}
  selector:
    {{- include "evalpool.selector" . | nindent 4 }}
  ports:
    - name: grpc
      port: {{ $port }}
      targetPort: grpc
      appProtocol: kubernetes.io/h2c
    - name: metrics
      port: {{ $metricsPort }}
      targetPort: metrics
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels:
    {{- include "evalpool.labels" . | nindent 4 }}
spec:
  serviceName: {{ $name }}
  replicas: {{ if $isWorker }}{{ len $values.addresses.workers }}{{ else }}1{{ end }}
  podManagementPolicy: Parallel
  selector:
    matchLabels:
      {{- include "evalpool.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "evalpool.labels" . | nindent 8 }}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: {{ $metricsPort | quote }}
        prometheus.io/path: /metrics
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ add (int $own.shutdownGrace) 10 }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml $values.podSecurityContext | nindent 8 }}
      containers:
        - name: {{ $service }}
          image: "{{ $values.image.repository }}:{{ $values.image.tag | default $root.Chart.AppVersion }}"
          imagePullPolicy: {{ $values.image.pullPolicy }}
          command: [evalpool, serve, {{ $service }}]
          env:
            - name: HOME
              value: /tmp
            - name: POD_NAME
              valueFrom: {fieldRef: {fieldPath: metadata.name}}
            - name: POD_INDEX
              valueFrom: {fieldRef: {fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}}
            - name: {{ $prefix }}_LISTEN
              value: "0.0.0.0:{{ $port }}"
            - name: {{ $prefix }}_METRICS_LISTEN
              value: "0.0.0.0:{{ $metricsPort }}"
            - name: {{ $prefix }}_DATA_DIR
              value: /data
            - name: {{ $prefix }}_MODELS_DIR
              value: /data/models
            - name: {{ $prefix }}_KEY_FILE
              value: {{ if $isWorker }}/keys/worker-$(POD_INDEX).json{{ else }}/keys/{{ $service }}.json{{ end }}
            - name: {{ $prefix }}_OPERATOR
              value: {{ $values.operator | quote }}
            - name: {{ $prefix }}_SHUTDOWN_GRACE
              value: {{ $own.shutdownGrace | quote }}
            - name: {{ $prefix }}_LOG_FORMAT
              value: json
            - name: {{ $prefix }}_LOG_LEVEL
              value: {{ $values.logLevel }}
            {{- if $isWorker }}
            - name: {{ $prefix }}_ADVERTISE
              value: "$(POD_NAME).{{ $name }}:{{ $port }}"
            {{- end }}
            {{- if eq $service "router" }}
            - name: {{ $prefix }}_BASE_FEE
              value: {{ $values.inference.baseFee | quote }}
            - name: {{ $prefix }}_TOKEN_FEE
              value: {{ $values.inference.tokenFee | quote }}
            {{- end }}
            {{- if and (eq $service "embedding") $values.chroma.server }}
            - name: {{ $prefix }}_CHROMA_SERVER
              value: {{ $values.chroma.server | quote }}
            - name: {{ $prefix }}_CHROMA_SSL
              value: {{ $values.chroma.ssl | quote }}
            {{- with $values.chroma.headerSecret }}
            - name: {{ $prefix }}_CHROMA_HEADER
              valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: header}}
            {{- end }}
            {{- end }}
            - name: {{ $prefix }}_ADMITTED_WORKERS
              value: {{ join "," $values.addresses.workers | quote }}
            {{- range $peer := list "token" "benchmark" "dataset" "router" "embedding" }}
            {{- if ne $peer $service }}
            - name: {{ $prefix }}_{{ upper $peer }}_ENDPOINT
              value: "{{ $fullname }}-{{ $peer }}:{{ get $ports $peer }}"
            - name: {{ $prefix }}_{{ upper $peer }}_ADDRESS
              value: {{ get $values.addresses $peer | quote }}
            {{- end }}
            {{- end }}
            {{- range $key, $value := $own.env }}
            - name: {{ $key }}
              value: {{ $value | quote }}
            {{- end }}
          ports:
            - name: grpc
              containerPort: {{ $port }}
            - name: metrics
              containerPort: {{ $metricsPort }}
          startupProbe:
            grpc: {port: {{ $port }}}
            periodSeconds: 2
            failureThreshold: 60
          readinessProbe:
            grpc: {port: {{ $port }}}
            periodSeconds: 5
          livenessProbe:
            grpc: {port: {{ $port }}}
            periodSeconds: 20
            timeoutSeconds: 10
          resources:
            {{- toYaml $own.resources | nindent 12 }}
          securityContext:
            {{- toYaml $values.securityContext | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: keys, mountPath: /keys, readOnly: true}
            - {name: tmp, mountPath: /tmp}
      {{- with $own.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $own.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $own.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumes:
        - name: keys
          secret:
            secretName: {{ $values.keys.secret }}
            defaultMode: 0440
            items:
              {{- if $isWorker }}
              {{- range $index, $address := $values.addresses.workers }}
              - {key: worker-{{ $index }}.json, path: worker-{{ $index }}.json}
              {{- end }}
              {{- else }}
              - {key: {{ $service }}.json, path: {{ $service }}.json}
              {{- end }}
        - name: tmp
          emptyDir: {}
  volumeClaimTemplates:
    - metadata:
        name: data
        labels:
          {{- include "evalpool.selector" . | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $own.persistence.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $own.persistence.size }}
{{- end -}}
