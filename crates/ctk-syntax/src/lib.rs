//! Source files, spans, diagnostics, the KDL tree and its cursor, expansion of ${…}.
