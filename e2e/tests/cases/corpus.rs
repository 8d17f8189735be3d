//! The cases of `test_data/dockerfiles` build to what their goldens say. `CTK_BLESS=1` writes the goldens, `CTK_CASES`
//! chooses cases by words of their names.

use std::fs;

use ctk_e2e::corpus::{Case, Outcome, Site, cases, each};
use ctk_e2e::{has_programs, is_root};

/// Pairs of a golden's file name and what it should say.
fn goldens(site: &Site, outcome: &Outcome) -> [(&'static str, Option<String>); 2] {
    match outcome {
        Err(said) => [("built", None), ("refused", Some(site.plain(said)))],
        Ok(images) => {
            let several = images.len() > 1;
            let image = |(platform, image): &(String, ctk_e2e::image::Image)| {
                let head = if several { format!("--- {platform}\n") } else { String::new() };
                head + &image.golden(&site.base)
            };
            [("built", Some(site.plain(&images.iter().map(image).collect::<String>()))), ("refused", None)]
        }
    }
}

fn check(site: &Site, case: &Case) -> Option<String> {
    let outcome = site.ctk(case);
    let bless = std::env::var_os("CTK_BLESS").is_some();
    for (name, wanted) in goldens(site, &outcome) {
        let path = case.folder.join(name);
        let there = fs::read_to_string(&path).ok();
        if there == wanted {
            continue;
        }
        match (&wanted, bless) {
            (Some(text), true) => fs::write(&path, text).unwrap(),
            (None, true) => fs::remove_file(&path).unwrap(),
            _ => {
                let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "(nothing)\n".into());
                let story = outcome.as_ref().err().cloned().unwrap_or_default();
                return Some(format!(
                    "{}/{name}\n--- expected\n{}--- seen\n{}{story}",
                    case.name,
                    text(&there),
                    text(&wanted)
                ));
            }
        }
    }
    None
}

#[test]
fn dockerfiles_build_to_their_goldens() {
    if !is_root() || !has_programs(&["busybox", "git"]) {
        return;
    }
    let all = cases();
    let site = Site::new(&all, false);
    let failed: Vec<String> = each(&all, 4, |case| check(&site, case)).into_iter().flatten().collect();
    assert!(failed.is_empty(), "{} of {} cases\n{}", failed.len(), all.len(), failed.join("\n"));
}
