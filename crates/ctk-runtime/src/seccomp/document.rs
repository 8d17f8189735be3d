//! The default profile as `linux.seccomp` of the runtime specification (`config-linux.md#seccomp`).

use serde_json::{Value, json};

use super::{Action, Condition, Rule, profile};
use crate::Capabilities;

/// The default profile for a process with these capabilities, as any runtime reads it. What it does not name is refused
/// with EPERM; calls that are newer than it give ENOSYS with a runtime that knows to tell them.
pub fn default_profile_document(capabilities: Capabilities) -> Value {
    let mut allowed = Vec::new();
    let mut others = Vec::new();
    for (name, rule) in profile::rules(capabilities) {
        match rule {
            Rule::Always(Action::Allow) => allowed.push(name),
            Rule::Always(Action::Errno(libc::EPERM)) => {}
            Rule::Always(Action::Errno(errno)) => others.push(refused(name, errno, &[])),
            Rule::When(cases, last) => {
                // Conditions have no "else": what remains is said by the opposite of what was refused, one by one.
                for (conditions, action) in &cases {
                    match action {
                        Action::Allow => others.push(allowed_when(name, conditions.iter().map(holds).collect())),
                        Action::Errno(errno) if *errno != libc::EPERM => {
                            others.push(refused(name, *errno, &conditions.iter().map(holds).collect::<Vec<_>>()));
                        }
                        Action::Errno(_) => {}
                    }
                    if last == Action::Allow {
                        others.extend(remaining(conditions).into_iter().map(|args| allowed_when(name, args)));
                    }
                }
            }
        }
    }
    let mut syscalls = vec![json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" })];
    syscalls.extend(others);
    let architectures: &[&str] = match cfg!(target_arch = "x86_64") {
        true => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        false => &["SCMP_ARCH_AARCH64"],
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": architectures,
        "syscalls": syscalls,
    })
}

fn allowed_when(name: &str, args: Vec<Value>) -> Value {
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args })
}

fn refused(name: &str, errno: i32, args: &[Value]) -> Value {
    json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args })
}

fn holds(condition: &Condition) -> Value {
    match *condition {
        Condition::Equal { argument, value } => json!({ "index": argument, "value": value, "op": "SCMP_CMP_EQ" }),
        // Any of several bits has no word of its own; only refusals use it, by what remains.
        Condition::AnyBit { argument, bits } => json!({ "index": argument, "value": bits, "op": "SCMP_CMP_GE" }),
    }
}

/// When not all of these hold: the first does not, or the first does and the second does not, and so on.
fn remaining(conditions: &[Condition]) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for (index, condition) in conditions.iter().enumerate() {
        let mut args: Vec<Value> = conditions.iter().take(index).map(holds).collect();
        args.push(match *condition {
            Condition::Equal { argument, value } => json!({ "index": argument, "value": value, "op": "SCMP_CMP_NE" }),
            Condition::AnyBit { argument, bits } => {
                json!({ "index": argument, "value": bits, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" })
            }
        });
        all.push(args);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(document: &Value, name: &str) -> Vec<Value> {
        let all = document["syscalls"].as_array().unwrap();
        all.iter().filter(|entry| entry["names"].as_array().unwrap().contains(&json!(name))).cloned().collect()
    }

    #[test]
    fn conditions_are_said_as_the_specification_has_them() {
        let usual = default_profile_document(Capabilities::usual());
        assert_eq!(of(&usual, "mount"), Vec::<Value>::new());
        assert_eq!(of(&usual, "read").len(), 1);
        let clone = of(&usual, "clone");
        assert_eq!(clone.len(), 1);
        assert_eq!(clone[0]["args"][0]["op"], "SCMP_CMP_MASKED_EQ");
        assert_eq!(of(&usual, "clone3")[0]["errnoRet"], libc::ENOSYS);
        assert_eq!(of(&usual, "personality").len(), 5);
        let all = default_profile_document(Capabilities::from_bits(u64::MAX));
        assert!(of(&all, "mount").len() == 1 && of(&all, "clone")[0].get("args").is_none());
        let without_audit = Capabilities::usual().without(Capabilities::parse("AUDIT_WRITE").unwrap());
        let socket = of(&default_profile_document(without_audit), "socket");
        assert_eq!(
            socket.iter().map(|entry| entry["action"].as_str().unwrap()).collect::<Vec<_>>(),
            ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_ALLOW"]
        );
    }
}
