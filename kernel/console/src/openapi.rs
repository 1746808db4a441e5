//! The OpenAPI 3.1 document of the routing table.

use alloc::string::String;
use core::fmt::Write;

use store::json::write_string;

use crate::route::{ROUTES, Route};

/// Errors that any request may have.
const ANY: [u16; 5] = [400, 401, 406, 429, 503];

/// The document, as JSON.
pub fn document() -> String {
    let mut out = String::from(
        r##"{"openapi":"3.1.0","info":{"title":"nanos console","version":"1"},"security":[{"token":[]},{"session":[]}],"components":{"securitySchemes":{"token":{"type":"http","scheme":"bearer"},"session":{"type":"apiKey","in":"cookie","name":"nanos_session"}},"schemas":{"Error":{"type":"object","required":["error"],"properties":{"error":{"type":"object","required":["code","message"],"properties":{"code":{"type":"string"},"message":{"type":"string"},"path":{"type":"string"}}}}}},"responses":{"Error":{"description":"It was not done.","content":{"application/json":{"schema":{"$ref":"#/components/schemas/Error"}}}}}},"paths":{"##,
    );
    let mut first = true;
    for (place, route) in ROUTES.iter().enumerate() {
        if ROUTES[..place]
            .iter()
            .any(|earlier| earlier.path == route.path)
        {
            continue;
        }
        separate(&mut out, &mut first);
        write_string(&mut out, route.path);
        out.push_str(":{");
        let mut first_method = true;
        for same in ROUTES.iter().filter(|other| other.path == route.path) {
            separate(&mut out, &mut first_method);
            operation(&mut out, same);
        }
        out.push('}');
    }
    out.push_str("}}");
    out
}

fn separate(out: &mut String, first: &mut bool) {
    if !core::mem::take(first) {
        out.push(',');
    }
}

// Writing to a string does not fail.
fn operation(out: &mut String, route: &Route) {
    let method = route.method.name().unwrap_or_default().to_ascii_lowercase();
    let _ = write!(
        out,
        "\"{method}\":{{\"operationId\":\"{:?}\",\"summary\":",
        route.endpoint
    );
    write_string(out, route.help);
    if route.open {
        out.push_str(",\"security\":[]");
    }
    out.push_str(",\"parameters\":[");
    let mut first = true;
    if let Some((_, rest)) = route.path.split_once('{') {
        let name = rest.split('}').next().unwrap_or_default();
        let kind = if name == "tid" { "integer" } else { "string" };
        first = false;
        let _ = write!(
            out,
            r#"{{"name":"{name}","in":"path","required":true,"schema":{{"type":"{kind}"}}}}"#
        );
    }
    for parameter in route.query {
        separate(out, &mut first);
        let _ = write!(
            out,
            r#"{{"name":"{}","in":"query","description":"#,
            parameter.name
        );
        write_string(out, parameter.help);
        let _ = write!(out, ",\"schema\":{}}}", parameter.schema);
    }
    out.push(']');
    if let Some(schema) = route.body {
        let _ = write!(
            out,
            r#","requestBody":{{"required":true,"content":{{"application/json":{{"schema":{schema}}}}}}}"#
        );
    }
    out.push_str(",\"responses\":{");
    let mut first = true;
    for (place, (status, _)) in route.answers.iter().enumerate() {
        if route.answers[..place]
            .iter()
            .any(|(earlier, _)| earlier == status)
        {
            continue;
        }
        separate(out, &mut first);
        let _ = write!(out, r#""{status}":{{"description":"Done.""#);
        let same = route.answers.iter().filter(|(other, _)| other == status);
        let mut kinds = same.filter_map(|(_, kind)| *kind).peekable();
        if kinds.peek().is_some() {
            out.push_str(",\"content\":{");
            let mut first = true;
            for kind in kinds {
                separate(out, &mut first);
                let _ = write!(out, "\"{kind}\":{{}}");
            }
            out.push('}');
        }
        out.push('}');
    }
    for status in ANY.iter().chain(route.errors) {
        separate(out, &mut first);
        let _ = write!(
            out,
            r##""{status}":{{"$ref":"#/components/responses/Error"}}"##
        );
    }
    out.push_str("}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_json_and_whole() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let operations: usize = paths
            .values()
            .map(|path| path.as_object().unwrap().len())
            .sum();
        assert_eq!(operations, ROUTES.len());
        let write = &paths["/api/store/{path}"]["put"];
        assert_eq!(write["parameters"][0]["in"], "path");
        assert!(write["responses"]["405"].is_object() && write["requestBody"].is_object());
        let profile = &paths["/api/profile"]["get"]["responses"]["200"]["content"];
        assert_eq!(profile.as_object().unwrap().len(), 3);
        assert_eq!(paths["/login"]["get"]["security"], serde_json::json!([]));
    }
}
