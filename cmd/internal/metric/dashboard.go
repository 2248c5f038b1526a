package metric

import (
	"encoding/json"
	"strings"
)

type object map[string]any

// Grafana's schema of a dashboard: 39 is that of 10.x, which later versions read.
const dashboardSchema = 39

// Panels stand two in a row of 24 columns.
const (
	panelWidth  = 12
	panelHeight = 8
)

// Dashboard is the dashboard of packaging/grafana-dashboard.json: a panel a metric, and the findings themselves as Loki has them.
func Dashboard() ([]byte, error) {
	prometheus := object{"type": "prometheus", "uid": "${metrics}"}
	var panels []object
	add := func(p object, w, h int) {
		x, y := 0, 0
		if n := len(panels); n > 0 {
			last := panels[n-1]["gridPos"].(object)
			x, y = last["x"].(int)+last["w"].(int), last["y"].(int)
			if x+w > 2*panelWidth {
				x, y = 0, y+last["h"].(int)
			}
		}
		p["id"], p["gridPos"] = len(panels)+1, object{"x": x, "y": y, "w": w, "h": h}
		panels = append(panels, p)
	}
	add(object{
		"type": "logs", "title": "Findings: warnings and errors", "datasource": object{"type": "loki", "uid": "${logs}"},
		"targets": []object{{"refId": "A", "expr": `{job="jindan", kind="finding", level=~"warn|error"} | json | line_format "{{.severity}} {{.rule}} {{.summary_en}}"`}},
		"options": object{"wrapLogMessage": true, "sortOrder": "Descending", "showTime": true},
	}, 2*panelWidth, panelHeight)
	for _, m := range All {
		if m.Unit == "" {
			continue
		}
		selector := m.Name + `{instance=~"$instance"}`
		expr := selector
		if m.Kind == Counter {
			expr = "rate(" + selector + "[$__rate_interval])"
			if m.Unit == "short" {
				expr = "increase(" + selector + "[$__rate_interval])"
			}
		}
		legend := []string{"{{instance}}"}
		for _, l := range m.Labels {
			legend = append(legend, "{{"+l+"}}")
		}
		add(object{
			"type": "timeseries", "title": strings.TrimSuffix(m.Help, "."), "description": m.Name, "datasource": prometheus,
			"targets":     []object{{"refId": "A", "expr": expr, "legendFormat": strings.Join(legend, " ")}},
			"fieldConfig": object{"defaults": object{"unit": m.Unit, "min": 0}, "overrides": []object{}},
			"options":     object{"tooltip": object{"mode": "multi"}, "legend": object{"displayMode": "list", "placement": "bottom"}},
		}, panelWidth, panelHeight)
	}
	variable := func(name, kind string) object {
		return object{"name": name, "label": name, "type": "datasource", "query": kind}
	}
	return json.MarshalIndent(object{
		"title": "jindan", "uid": "jindan", "schemaVersion": dashboardSchema, "editable": true, "refresh": "30s",
		"time": object{"from": "now-1h", "to": "now"}, "panels": panels,
		"templating": object{"list": []object{variable("metrics", "prometheus"), variable("logs", "loki"), {
			"name": "instance", "label": "host", "type": "query", "datasource": prometheus, "query": "label_values(jindan_info, instance)",
			"multi": true, "includeAll": true, "refresh": 2,
		}}},
	}, "", "  ")
}
