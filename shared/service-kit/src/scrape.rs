//! Reads metrics in Prometheus' text format.
//!
//! It reads only what our own services write: one line per sample, without timestamps. A complete
//! parser would be more code than these lines.

/// The samples of a page of metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape(Vec<ScrapedSample>);

#[derive(Clone, Debug, PartialEq)]
struct ScrapedSample {
    name: String,
    labels: String,
    value: f64,
}

impl Scrape {
    /// Reads a page; lines that are not samples are skipped.
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.trim().rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some(ScrapedSample {
                name: name.to_owned(),
                labels: labels.trim_end_matches('}').to_owned(),
                value: value.parse().ok()?,
            })
        });
        Self(samples.collect())
    }

    /// The sum over every series of the name whose labels contain the text; `None` if there is
    /// none.
    pub fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let values: Vec<f64> = self
            .0
            .iter()
            .filter(|sample| sample.name == name && sample.labels.contains(label))
            .map(|sample| sample.value)
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_by_name_and_label() {
        let page = Scrape::parse(
            "# HELP a Things.\n# TYPE a counter\na 3\nb{stream=\"LAKE_0\"} 1.5\n\
             b{stream=\"WAREHOUSE_0\"} 2\nnonsense\n",
        );
        assert_eq!(page.sum("a", ""), Some(3.0));
        assert_eq!(page.sum("b", ""), Some(3.5));
        assert_eq!(page.sum("b", "WAREHOUSE"), Some(2.0));
        assert_eq!(page.sum("c", ""), None);
    }
}
