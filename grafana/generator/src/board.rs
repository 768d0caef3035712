//! A board: rows of panels, placed from left to right.

use serde_json::{Value, json};

use crate::{
    panel::{Panel, source},
    scope::scoped,
};

/// Columns of a board.
const COLUMNS: u32 = 24;
/// What every board carries, so that they link to each other.
const TAG: &str = "lakegauge";

/// What a board lets people choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The Prometheus.
    Prometheus,
    /// The installation: a label of the scrape targets, which may be missing.
    Environment,
    /// The archive.
    Archive,
    /// Buckets of the lake.
    Bucket,
    /// Warehouses.
    Warehouse,
    /// Who asked: the principal of an event.
    Tenant,
}

/// Panels under a headline.
#[derive(Clone, Debug)]
pub struct Row {
    /// The headline.
    pub title: &'static str,
    /// From left to right.
    pub panels: Vec<Panel>,
}

/// A board.
#[derive(Clone, Debug)]
pub struct Board {
    /// Its address in Grafana, and the name of its file.
    pub uid: &'static str,
    /// Its name.
    pub title: &'static str,
    /// What question it answers.
    pub description: &'static str,
    /// How far it reaches back when it is opened, as `now-1h`.
    pub from: &'static str,
    /// How often it asks again; empty is never.
    pub refresh: &'static str,
    /// What can be chosen.
    pub variables: Vec<Variable>,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

impl Board {
    /// Where it stands below `grafana/dashboards/`: the folder is the folder in Grafana.
    pub fn path(&self) -> String {
        format!("Lakegauge/{}.json", self.uid)
    }

    /// The file.
    pub fn text(&self) -> String {
        format!("{:#}\n", self.json())
    }

    /// As Grafana reads it.
    pub fn json(&self) -> Value {
        let variables: Vec<Value> = self.variables.iter().map(|variable| variable.json()).collect();
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": 42,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": self.refresh,
            "time": { "from": self.from, "to": "now" },
            "links": [link()],
            "templating": { "list": variables },
            "annotations": { "list": self.annotations() },
            "panels": self.placed(),
        })
    }

    fn annotations(&self) -> Vec<Value> {
        let mut annotations = vec![
            annotation(
                "Alerts",
                "red",
                false,
                &json!({
                    "expr": scoped(ALERTS), "legendFormat": "{{alertname}}",
                }),
            ),
            annotation(
                "Starts",
                "blue",
                false,
                &json!({
                    "expr": scoped(STARTS), "legendFormat": "{{service}} started",
                }),
            ),
        ];
        if self.variables.contains(&Variable::Archive) {
            let target = json!({ "rawQuery": true, "format": "table", "rawSql": LOSSES });
            annotations.push(annotation("Declared losses", "orange", true, &target));
        }
        annotations
    }

    fn placed(&self) -> Vec<Value> {
        let (mut placed, mut y) = (Vec::new(), 0);
        for row in &self.rows {
            let id = placed.len() + 1;
            placed.push(json!({
                "id": id, "type": "row", "title": row.title, "collapsed": false, "panels": [],
                "gridPos": { "x": 0, "y": y, "w": COLUMNS, "h": 1 },
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in &row.panels {
                if x + panel.width > COLUMNS {
                    y += height;
                    (x, height) = (0, 0);
                }
                placed.push(panel.json(placed.len() + 1, x, y));
                x += panel.width;
                height = height.max(panel.height);
            }
            y += height;
        }
        placed
    }
}

impl Variable {
    /// Its name in queries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prometheus => "datasource",
            Self::Environment => "environment",
            Self::Archive => "archive",
            Self::Bucket => "bucket",
            Self::Warehouse => "warehouse",
            Self::Tenant => "tenant",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Prometheus => "Data source",
            Self::Environment => "Environment",
            Self::Archive => "Archive",
            Self::Bucket => "Bucket",
            Self::Warehouse => "Warehouse",
            Self::Tenant => "Tenant",
        }
    }

    /// What gives its values: a data source's type, PromQL, or SQL.
    pub const fn query(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::Archive => "grafana-postgresql-datasource",
            Self::Environment => "label_values(up{job=~\"lakegauge(-admin)?\"}, environment)",
            Self::Bucket => {
                "label_values(data_lake_storage_used_bytes{environment=~\"$environment\"}, bucket)"
            }
            Self::Warehouse => {
                "label_values(data_warehouse_queries_total{environment=~\"$environment\"}, \
                 warehouse)"
            }
            // Who asked in the last quarter of an hour of the range: raw events are many.
            Self::Tenant => {
                "select distinct principal from lakegauge_api.warehouse_query \
                 where occurred_at between greatest($__timeFrom()::timestamptz, \
                 $__timeTo()::timestamptz - interval '15 minutes') and $__timeTo()::timestamptz \
                 order by 1 limit 200"
            }
        }
    }

    fn json(self) -> Value {
        let mut variable = json!({ "name": self.name(), "label": self.label() });
        let more = match self {
            Self::Prometheus | Self::Archive => {
                json!({ "type": "datasource", "query": self.query(), "refresh": 1 })
            }
            Self::Environment | Self::Bucket | Self::Warehouse | Self::Tenant => json!({
                "type": "query",
                "datasource": source(self == Self::Tenant),
                "query": self.query(),
                "refresh": 2,
                "sort": 1,
                "multi": true,
                "includeAll": true,
                // Not the list of all: what has no series of its own belongs to all as well, and so
                // does what has no such label.
                "allValue": if self == Self::Environment { ".*" } else { ".+" },
                "current": { "text": "All", "value": "$__all" },
            }),
        };
        if let (Value::Object(variable), Value::Object(more)) = (&mut variable, more) {
            variable.extend(more);
        }
        variable
    }
}

fn link() -> Value {
    json!({
        "title": "Lakegauge", "type": "dashboards", "tags": [TAG], "asDropdown": false,
        "icon": "external link", "includeVars": true, "keepTime": true, "targetBlank": false,
        "tooltip": "The other boards, at the same time and choice", "url": "",
    })
}

/// Marks moments on every panel of a board.
fn annotation(name: &str, colour: &str, sql: bool, target: &Value) -> Value {
    let mut target = target.clone();
    target["refId"] = json!("Anno");
    json!({
        "name": name, "enable": true, "iconColor": colour, "datasource": source(sql),
        "target": target,
    })
}

/// What marks incidents and deployments on every board.
const ALERTS: &str = "sum by (alertname) (ALERTS{alertstate=\"firing\"})";
const STARTS: &str =
    "changes(process_start_time_seconds{job=\"lakegauge-admin\"}[$__rate_interval]) > 0";
const LOSSES: &str = "select found_at as time, \
     'declared loss in ' || stream || ', messages ' || first || ' to ' || last as text \
     from lakegauge_api.declared_loss where $__timeFilter(found_at) order by found_at limit 100";
