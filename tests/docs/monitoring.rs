//! The dashboard and the alerts ask for metrics that exist, by labels that they have.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use walcast::metrics::family::Family;
use walcast::metrics::family::Kind;
use walcast::metrics::table;
use yaml_rust2::Yaml;
use yaml_rust2::YamlLoader;

use crate::anchor_of;
use crate::documents::read;
use crate::documents::root;

/// Labels that Prometheus itself puts to each value, and those of a histogram's buckets.
const ADDED: [&str; 3] = ["instance", "job", "le"];

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("dashboards/walcast.json")).unwrap();
    let mut asked = BTreeSet::new();
    let mut panels = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            asked.extend(check(target["expr"].as_str().unwrap()));
            panels += 1;
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        check(variable["query"].as_str().unwrap());
    }
    assert!(panels > 50, "{panels}");
    assert!(asked.len() > 50, "{asked:?}");
}

#[test]
fn every_alert_asks_for_metrics_that_exist_and_has_its_page() {
    let rules = YamlLoader::load_from_str(&read("alerts/walcast.rules.yml")).unwrap();
    assert_eq!(rules.len(), 1);
    let rules = &rules[0];
    let mut names = BTreeSet::new();
    let pages = fs::read_to_string(root().join("docs/operate.md")).ok();
    let headings = |text: String| -> BTreeSet<String> {
        text.lines().filter(|line| line.starts_with('#')).map(anchor_of).collect()
    };
    let pages = pages.map(headings);
    for rule in rules["groups"][0]["rules"].as_vec().unwrap() {
        let text = |of: &Yaml| of.as_str().unwrap().to_owned();
        let name = text(&rule["alert"]);
        check(&text(&rule["expr"]));
        assert!(text(&rule["for"]).ends_with('m'), "{name}");
        let severity = text(&rule["labels"]["severity"]);
        assert!(["warning", "critical"].contains(&severity.as_str()), "{name}: {severity}");
        let annotations = &rule["annotations"];
        assert!(!text(&annotations["summary"]).ends_with('.'), "{name}");
        assert!(text(&annotations["description"]).ends_with('.'), "{name}");
        let (page, anchor) = (text(&annotations["runbook"]), name.to_ascii_lowercase());
        assert_eq!(page, format!("docs/operate.md#{anchor}"));
        let has_page = pages.as_ref().is_none_or(|pages| pages.contains(&anchor));
        assert!(has_page, "docs/operate.md has no section {name}");
        assert!(names.insert(name.clone()), "{name} twice");
    }
    assert!(names.len() > 15, "{names:?}");
}

/// The families that an expression asks for; each must exist, under that very name, and have the
/// labels.
fn check(expression: &str) -> BTreeSet<&'static str> {
    let served = served();
    let mut asked = BTreeSet::new();
    let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let mut rest = expression;
    while let Some(at) = rest.find(is_word) {
        let (_, begun) = rest.split_at(at);
        let end = begun.find(|it| !is_word(it)).unwrap_or(begun.len());
        let (word, after) = begun.split_at(end);
        rest = after;
        if !(word.starts_with("walcast_") || word.starts_with("process_")) {
            continue;
        }
        assert!(served.contains_key(word), "no metric {word}: {expression}");
        let family = served.get(word).unwrap();
        asked.insert(family.name);
        if let Some((labels, _)) = rest.strip_prefix('{').and_then(|it| it.split_once('}')) {
            for label in labels.split(',') {
                let label = label.split(['=', '!']).next().unwrap().trim();
                let known = family.labels.contains(&label) || ADDED.contains(&label);
                assert!(known, "{word} has no label {label}: {expression}");
            }
        }
    }
    asked
}

/// Every name under which something is served.
fn served() -> BTreeMap<String, &'static Family> {
    let names = |family: &'static Family| {
        let name = family.served_name();
        let names = match family.kind {
            Kind::Histogram => ["bucket", "sum", "count"].map(|it| format!("{name}_{it}")).to_vec(),
            Kind::Counter | Kind::Gauge => vec![name],
        };
        names.into_iter().map(move |name| (name, family))
    };
    table::all().flat_map(names).collect()
}
