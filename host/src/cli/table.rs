//! Tables and trees of text.

use std::collections::HashMap;

/// How the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Lays rows out in columns that are as wide as their widest cell, two spaces apart. No line ends in spaces.
pub(super) fn columns<const N: usize>(aligns: [Align; N], rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for ((cell, align), width) in row.iter().zip(aligns).zip(widths) {
            let padding = " ".repeat(width - cell.chars().count());
            match align {
                Align::Left => line.extend([cell, padding.as_str(), "  "]),
                Align::Right => line.extend([padding.as_str(), cell, "  "]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    };
    rows.iter().map(line).collect()
}

/// The characters that a tree is drawn with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Branches {
    middle: &'static str,
    last: &'static str,
    beside: &'static str,
    below: &'static str,
}

impl Branches {
    const BOXES: Branches = Branches { middle: "├─ ", last: "└─ ", beside: "│  ", below: "   " };
    const ASCII: Branches = Branches { middle: "|- ", last: "`- ", beside: "|  ", below: "   " };

    /// Box characters where the locale has them.
    pub(super) fn of_locale() -> Branches {
        // The first of these that is set decides (locale(7)).
        let name = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        let name = name.unwrap_or_default().to_ascii_lowercase();
        if name.contains("utf-8") || name.contains("utf8") { Branches::BOXES } else { Branches::ASCII }
    }
}

/// One node of a tree that is to be drawn.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    /// Its name.
    pub(super) id: &'a str,
    /// The name of the one it hangs below.
    pub(super) parent: Option<&'a str>,
}

/// Draws a tree: the branches in front of each node and the node's index, in the order of the lines. Siblings
/// stay in the order given.
///
/// A node whose parent is not there is drawn as a root, and so is one of a ring of parents: each node comes
/// exactly once. Works without recursion, so a chain of layers can be of any length.
pub(super) fn tree(nodes: &[Leaf<'_>], branches: Branches) -> Vec<(String, usize)> {
    let index: HashMap<&str, usize> = nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
    let parent = |node: &Leaf<'_>| node.parent.and_then(|id| index.get(id).copied());
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        if let Some(parent) = parent(node) {
            children[parent].push(at);
        }
    }
    let mut drawn = vec![false; nodes.len()];
    let mut lines = Vec::with_capacity(nodes.len());
    let roots = (0..nodes.len()).filter(|&at| parent(&nodes[at]).is_none());
    // After the roots everything once more: what is not drawn by then hangs below itself.
    for root in roots.chain(0..nodes.len()) {
        // Own line, and what stands in front of the lines below.
        let mut open = vec![(root, String::new(), String::new())];
        while let Some((at, before, below)) = open.pop() {
            if std::mem::replace(&mut drawn[at], true) {
                continue;
            }
            lines.push((before, at));
            for (position, &child) in children[at].iter().rev().enumerate() {
                let (own, further) = match position {
                    0 => (branches.last, branches.below),
                    _ => (branches.middle, branches.beside),
                };
                open.push((child, format!("{below}{own}"), format!("{below}{further}")));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(nodes: &[(&str, Option<&str>)]) -> Vec<String> {
        let leaves: Vec<Leaf<'_>> = nodes.iter().map(|&(id, parent)| Leaf { id, parent }).collect();
        let lines = tree(&leaves, Branches::ASCII);
        lines.into_iter().map(|(before, at)| format!("{before}{}", nodes[at].0)).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["ID", "SIZE", "STATE"], ["base", "123", "complete"], ["a", "7", ""]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let lines = columns([Align::Left, Align::Right, Align::Left], &rows);
        assert_eq!(lines, ["ID    SIZE  STATE", "base   123  complete", "a        7"]);
    }

    /// Nodes with their parents, and the lines they give.
    type Case = (&'static [(&'static str, Option<&'static str>)], &'static [&'static str]);

    #[test]
    fn trees() {
        let cases: [Case; 5] = [
            (&[], &[]),
            (&[("a", None), ("b", None)], &["a", "b"]),
            (
                &[("a", None), ("b", Some("a")), ("c", Some("b")), ("d", Some("a"))],
                &["a", "|- b", "|  `- c", "`- d"],
            ),
            (&[("b", Some("lost")), ("c", Some("b"))], &["b", "`- c"]),
            (&[("a", Some("b")), ("b", Some("a")), ("c", Some("c"))], &["a", "`- b", "c"]),
        ];
        for (nodes, lines) in cases {
            assert_eq!(draw(nodes), lines, "{nodes:?}");
        }
    }

    #[test]
    fn a_deep_tree_needs_no_deep_stack() {
        let ids: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
        let leaves: Vec<Leaf<'_>> = (0..ids.len())
            .map(|at| Leaf { id: &ids[at], parent: at.checked_sub(1).map(|above| ids[above].as_str()) })
            .collect();
        assert_eq!(tree(&leaves, Branches::ASCII).len(), ids.len());
    }
}
