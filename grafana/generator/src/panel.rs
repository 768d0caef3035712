//! A panel: what it asks, and how the answer is drawn.

use serde_json::{Value, json};

use crate::scope::scoped;

/// What a panel asks.
#[derive(Clone, Debug)]
pub enum Query {
    /// PromQL.
    Prometheus {
        /// The expression, with Grafana's variables in it.
        expr: String,
        /// Legend, as `{{bucket}}`.
        legend: String,
        /// Whether only the newest value is asked for.
        instant: bool,
    },
    /// SQL of the archive, with Grafana's macros in it.
    Sql {
        /// The statement.
        sql: String,
        /// `time_series` or `table`.
        format: &'static str,
    },
}

/// How a panel draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines over time.
    Lines,
    /// One big number with its course behind it.
    Number,
    /// One bar for each series.
    Bars,
    /// Bars over the values of the first column.
    Columns,
    /// Rows and columns.
    Table,
    /// How many fell into which range, over time.
    Heatmap,
}

/// A panel. Every one has a title, a unit, and says what to do when it looks wrong.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What is shown.
    pub title: &'static str,
    /// Grafana's name of the unit.
    pub unit: &'static str,
    /// What it means, and what to do when it looks wrong.
    pub description: &'static str,
    /// How it is drawn.
    pub form: Form,
    /// What it asks, in order.
    pub queries: Vec<Query>,
    /// Width, of the 24 columns of a board.
    pub width: u32,
    /// Height, in Grafana's rows of about 30 pixels.
    pub height: u32,
    /// Values from which on a colour holds; below the first it is green.
    pub thresholds: Vec<(f64, &'static str)>,
    /// Units of single columns of a table.
    pub column_units: Vec<(&'static str, &'static str)>,
    /// What is written where there is no answer.
    pub no_value: Option<&'static str>,
    /// Range of the values, where it is known.
    pub range: Option<(f64, f64)>,
}

impl Panel {
    /// A panel of a form, of the usual size of that form.
    pub fn new(
        form: Form,
        title: &'static str,
        unit: &'static str,
        description: &'static str,
    ) -> Self {
        let (width, height) = match form {
            Form::Number => (6, 5),
            Form::Lines | Form::Bars | Form::Columns | Form::Heatmap => (12, 8),
            Form::Table => (24, 9),
        };
        Self {
            title,
            unit,
            description,
            form,
            queries: Vec::new(),
            width,
            height,
            thresholds: Vec::new(),
            column_units: Vec::new(),
            no_value: None,
            range: None,
        }
    }

    /// Asks Prometheus, for the installations that the board's variable names.
    #[must_use]
    pub fn ask(mut self, expr: impl Into<String>, legend: &str) -> Self {
        let instant = matches!(self.form, Form::Bars | Form::Table);
        self.queries.push(Query::Prometheus {
            expr: scoped(&expr.into()),
            legend: legend.to_owned(),
            instant,
        });
        self
    }

    /// Asks the archive.
    #[must_use]
    pub fn sql(mut self, sql: impl Into<String>) -> Self {
        let format = if self.form == Form::Lines { "time_series" } else { "table" };
        self.queries.push(Query::Sql { sql: sql.into(), format });
        self
    }

    /// Width and height.
    #[must_use]
    pub const fn size(mut self, width: u32, height: u32) -> Self {
        self.width = width;
        self.height = height;
        self
    }

    /// Colours from values on.
    #[must_use]
    pub fn colours(mut self, steps: &[(f64, &'static str)]) -> Self {
        self.thresholds = steps.to_vec();
        self
    }

    /// Units of single columns.
    #[must_use]
    pub fn columns(mut self, units: &[(&'static str, &'static str)]) -> Self {
        self.column_units = units.to_vec();
        self
    }

    /// What is written where there is no answer.
    #[must_use]
    pub const fn otherwise(mut self, text: &'static str) -> Self {
        self.no_value = Some(text);
        self
    }

    /// Range of the values.
    #[must_use]
    pub const fn between(mut self, least: f64, most: f64) -> Self {
        self.range = Some((least, most));
        self
    }

    /// As JSON, with its number on the board and its place.
    pub(crate) fn json(&self, id: usize, x: u32, y: u32) -> Value {
        let sql = matches!(self.queries.first(), Some(Query::Sql { .. }));
        json!({
            "id": id,
            "type": self.kind(),
            "title": self.title,
            "description": self.description,
            "datasource": source(sql),
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height },
            "maxDataPoints": 500,
            "targets": self.targets(),
            "fieldConfig": { "defaults": self.defaults(), "overrides": self.overrides() },
            "options": self.options(),
        })
    }

    /// Grafana's name of the form.
    pub const fn kind(&self) -> &'static str {
        match self.form {
            Form::Lines => "timeseries",
            Form::Number => "stat",
            Form::Bars => "bargauge",
            Form::Columns => "barchart",
            Form::Table => "table",
            Form::Heatmap => "heatmap",
        }
    }

    fn targets(&self) -> Vec<Value> {
        let letters = ('A'..='Z').map(String::from);
        let target = |(query, letter): (&Query, String)| match query {
            Query::Prometheus { expr, legend, instant } => json!({
                "refId": letter,
                "datasource": source(false),
                "editorMode": "code",
                "expr": expr,
                "legendFormat": legend,
                "instant": instant,
                "range": !instant,
                "format": match self.form {
                    Form::Heatmap => "heatmap",
                    Form::Table => "table",
                    Form::Lines | Form::Number | Form::Bars | Form::Columns => "time_series",
                },
            }),
            Query::Sql { sql, format } => json!({
                "refId": letter,
                "datasource": source(true),
                "editorMode": "code",
                "rawQuery": true,
                "rawSql": sql,
                "format": format,
            }),
        };
        self.queries.iter().zip(letters).map(target).collect()
    }

    fn defaults(&self) -> Value {
        let first = json!({ "value": null, "color": "green" });
        let steps =
            self.thresholds.iter().map(|(value, color)| json!({ "value": value, "color": color }));
        let steps: Vec<Value> = std::iter::once(first).chain(steps).collect();
        let coloured = !self.thresholds.is_empty() && self.form != Form::Lines;
        let mode = if coloured { "thresholds" } else { "palette-classic" };
        let mut defaults = json!({
            "unit": self.unit,
            "color": { "mode": mode },
            "thresholds": { "mode": "absolute", "steps": steps },
        });
        if let Some(text) = self.no_value {
            defaults["noValue"] = json!(text);
        }
        if let Some((least, most)) = self.range {
            defaults["min"] = json!(least);
            defaults["max"] = json!(most);
        }
        if self.form == Form::Lines {
            let drawn = if self.thresholds.is_empty() { "off" } else { "dashed" };
            defaults["custom"] = json!({
                "drawStyle": "line",
                "lineWidth": 2,
                "fillOpacity": 8,
                "showPoints": "never",
                "spanNulls": 120_000,
                "thresholdsStyle": { "mode": drawn },
            });
        }
        defaults
    }

    fn overrides(&self) -> Vec<Value> {
        let one = |(column, unit): &(&str, &str)| {
            json!({
                "matcher": { "id": "byName", "options": column },
                "properties": [{ "id": "unit", "value": unit }],
            })
        };
        self.column_units.iter().map(one).collect()
    }

    fn options(&self) -> Value {
        let legend = json!({
            "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [],
        });
        let tooltip = json!({ "mode": "multi", "sort": "desc" });
        let newest = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        match self.form {
            Form::Lines => json!({ "legend": legend, "tooltip": tooltip }),
            Form::Number => json!({
                "colorMode": "value",
                "graphMode": "area",
                "justifyMode": "auto",
                "orientation": "auto",
                "percentChangeColorMode": "standard",
                "reduceOptions": newest,
                "showPercentChange": false,
                "textMode": "auto",
                "wideLayout": true,
            }),
            Form::Bars => json!({
                "displayMode": "basic",
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": [] },
                "maxVizHeight": 300,
                "minVizHeight": 12,
                "minVizWidth": 8,
                "namePlacement": "auto",
                "orientation": "horizontal",
                "reduceOptions": newest,
                "showUnfilled": true,
                "sizing": "auto",
                "valueMode": "color",
            }),
            Form::Columns => json!({
                "barWidth": 0.9,
                "fullHighlight": false,
                "groupWidth": 0.7,
                "legend": legend,
                "orientation": "auto",
                "showValue": "auto",
                "stacking": "none",
                "tooltip": tooltip,
                "xTickLabelMaxLength": 0,
                "xTickLabelRotation": 0,
            }),
            Form::Table => json!({ "frameIndex": 0, "showHeader": true, "cellHeight": "sm" }),
            // Its schema is not published with the others.
            Form::Heatmap => json!({
                "calculate": false,
                "cellGap": 1,
                "color": {
                    "mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5,
                    "fill": "dark-orange", "reverse": false, "scale": "exponential",
                },
                "filterValues": { "le": 1e-9 },
                "legend": { "show": true },
                "rowsFrame": { "layout": "auto" },
                "showValue": "never",
                "tooltip": { "mode": "single", "showColorScale": true, "yHistogram": false },
                "yAxis": { "axisPlacement": "left", "reverse": false, "unit": self.unit },
            }),
        }
    }
}

/// The data source, by the board's variable: what it is called differs from Grafana to Grafana.
pub(crate) fn source(sql: bool) -> Value {
    if sql {
        json!({ "type": "grafana-postgresql-datasource", "uid": "${archive}" })
    } else {
        json!({ "type": "prometheus", "uid": "${datasource}" })
    }
}
