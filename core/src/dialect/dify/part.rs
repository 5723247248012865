//! The parts of an installation, which shall not suffer from each other.

use crate::call::below;

/// A part of an installation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Where apps are built and looked after.
    Console,
    /// What programs ask.
    Service,
    /// What the pages of apps ask.
    Webapp,
    /// Files, and their previews.
    Files,
    /// Endpoints and triggers of plugins.
    Plugins,
    /// Whoever works on the same thing as others, by WebSocket or by requests that wait for something new.
    Sockets,
}

impl Part {
    /// All of them, by the names that the configuration has for them.
    pub const ALL: [(&'static str, Self); 6] = [
        ("console", Self::Console),
        ("service", Self::Service),
        ("webapp", Self::Webapp),
        ("files", Self::Files),
        ("plugins", Self::Plugins),
        ("sockets", Self::Sockets),
    ];

    /// Which part `path` belongs to. The pages themselves come from elsewhere.
    pub fn of(path: &str) -> Option<Self> {
        let parts = [
            ("/console/api", Self::Console),
            ("/v1", Self::Service),
            ("/openapi", Self::Service),
            ("/mcp", Self::Service),
            ("/api", Self::Webapp),
            ("/files", Self::Files),
            ("/e", Self::Plugins),
            ("/triggers", Self::Plugins),
            (super::SOCKET, Self::Sockets),
        ];
        let found = parts.into_iter().find(|(prefix, _)| below(prefix, path));
        found.map(|(_, part)| part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_of_one_part_or_none() {
        for (path, expected) in [
            ("/console/api/apps", Some(Part::Console)),
            ("/console", None),
            ("/v1/parameters", Some(Part::Service)),
            ("/v10/parameters", None),
            ("/mcp/server/x/mcp", Some(Part::Service)),
            ("/api/chat-messages", Some(Part::Webapp)),
            ("/files/a/preview", Some(Part::Files)),
            ("/e/hook", Some(Part::Plugins)),
            ("/explore", None),
            ("/triggers/webhook", Some(Part::Plugins)),
            ("/socket.io/", Some(Part::Sockets)),
            ("/socket.iox", None),
            ("/_next/static/x.js", None),
        ] {
            assert_eq!(Part::of(path), expected, "{path}");
        }
    }
}
