//! The config that `tare spec` writes and that a container from an image starts
//! from.

use oci_spec::runtime::Spec;

/// What it says, as a document: easier to hold against another runtime's than
/// calls of builders.
const DEFAULT: &str = include_str!("default.json");

/// The same as text: `tare spec` writes it as it is, in an order that people
/// know.
pub fn default_document() -> &'static str {
    DEFAULT
}

/// The same for an ordinary user with these ids, who is root in it: in a user
/// namespace, with the host's network and the host's /sys, and without limits
/// ([`super::rootless::adapt`] makes the same of a config that is parsed).
pub fn rootless_document(uid: u32, gid: u32) -> String {
    let mut text = DEFAULT.replace(",\n        \"gid=5\"", "");
    let sysfs = "\"type\": \"sysfs\",\n      \"source\": \"sysfs\",\n      \"options\": [";
    let bind = "\"type\": \"none\",\n      \"source\": \"/sys\",\n      \"options\": [\n        \"rbind\",";
    text = text.replace(sysfs, bind);
    // limits and device rules: from their name to the next one
    if let (Some(from), Some(to)) =
        (text.find("    \"resources\""), text.find("    \"namespaces\""))
    {
        let map = |name: &str, id: u32| {
            format!(
                "    \"{name}\": [\n      {{\n        \"containerID\": 0,\n        \
                 \"hostID\": {id},\n        \"size\": 1\n      }}\n    ],\n"
            )
        };
        let maps = map("uidMappings", uid) + &map("gidMappings", gid);
        text.replace_range(from..to, &maps);
    }
    text = text.replace("      {\n        \"type\": \"network\"\n      },\n", "");
    let last = "        \"type\": \"cgroup\"\n      }";
    text.replace(last, &format!("{last},\n      {{\n        \"type\": \"user\"\n      }}"))
}

/// A config to start from: a shell on a terminal in all namespaces but the user
/// one, with a read-only root, three capabilities and no devices but the
/// default ones.
pub fn default_spec() -> Spec {
    // a test holds that the document parses
    serde_json::from_str(DEFAULT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_document_is_lost() {
        let parsed: Spec = serde_json::from_str(DEFAULT).unwrap();
        assert_eq!(parsed, default_spec());
        let mut back = serde_json::to_value(&parsed).unwrap();
        let mut document: serde_json::Value = serde_json::from_str(DEFAULT).unwrap();
        for value in [&mut back, &mut document] {
            // sets have no order
            for set in value["process"]["capabilities"].as_object_mut().unwrap().values_mut() {
                let names = set.as_array_mut().unwrap();
                names.sort_by_key(ToString::to_string);
            }
        }
        assert_eq!(back, document);
    }
}
