//! Profiles of AppArmor, where the kernel has it.

pub fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.trim() == "Y")
}

/// A profile in the kernel, gone with this value.
pub struct Profile {
    pub name: String,
}

impl Profile {
    /// With these rules; `None`, with the reason, where none can be loaded.
    #[allow(clippy::print_stdout, reason = "a test that has nothing to try says so")]
    pub fn load(rules: &str) -> Option<Self> {
        let has_parser = std::process::Command::new("apparmor_parser").arg("--version").output();
        let has_policy = std::path::Path::new("/sys/kernel/security/apparmor/.load").exists();
        if !has_apparmor() || has_parser.is_err() || !has_policy {
            println!("skipped: needs AppArmor, securityfs and apparmor_parser");
            return None;
        }
        let name = super::unique_id();
        let profile = Profile { name };
        profile.parse("--add", rules);
        Some(profile)
    }

    fn parse(&self, what: &str, rules: &str) {
        use std::io::Write;
        let mut parser = std::process::Command::new("apparmor_parser")
            .args(["--skip-cache", "--quiet", what])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!("profile {} flags=(attach_disconnected) {{ {rules} }}", self.name);
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success(), "{what} {text}");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parse("--remove", "");
    }
}
