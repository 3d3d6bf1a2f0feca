//! PostgreSQL's words that are no column's name without quotes.

/// Whether PostgreSQL (14 to 18) takes the lower-case `word` for something other than a column, at
/// least in some places. From `pg_get_keywords()`, categories R, T and C.
pub(in crate::rule) fn is_reserved(word: &str) -> bool {
    RESERVED.binary_search(&word).is_ok()
}

/// Whether the lower-case `word`, though reserved, is part of the language of rules.
pub(in crate::rule) fn is_used(word: &str) -> bool {
    OPERATORS.contains(&word) || CALLED.contains(&word) || OTHERS.contains(&word)
}

/// Whether a parenthesis may follow the lower-case `word`.
pub(in crate::rule) fn may_open(word: &str) -> bool {
    OPERATORS.contains(&word) || CALLED.contains(&word)
}

/// Whether the lower-case `word`, though reserved, is part of the policies of a database, too.
pub(in crate::rule) fn is_asked(word: &str) -> bool {
    ASKED.contains(&word)
}

/// Words that only the policies of a database have.
const ASKED: &[&str] = &[
    "cross",
    "current_role",
    "current_user",
    "exists",
    "inner",
    "join",
    "limit",
    "on",
    "select",
    "where",
];

/// Words that an operand follows.
const OPERATORS: &[&str] = &[
    "all", "and", "any", "between", "case", "else", "from", "ilike", "in", "like", "not", "or",
    "some", "then", "when",
];

/// Functions, and what is written like one.
const CALLED: &[&str] =
    &["cast", "char_length", "character_length", "coalesce", "length", "lower", "nullif", "upper"];

/// What else rules are made of: words, and names of types.
#[rustfmt::skip]
const OTHERS: &[&str] = &[
    "array", "as", "bigint", "boolean", "character", "collate", "decimal", "distinct", "end",
    "false", "int", "integer", "interval", "is", "isnull", "json", "notnull", "null", "numeric", "precision",
    "real", "smallint", "time", "timestamp", "true", "varchar",
];

#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization",
    "between", "bigint", "binary", "bit", "boolean", "both", "case", "cast", "char", "character",
    "check", "coalesce", "collate", "collation", "column", "concurrently", "constraint", "create",
    "cross", "current_catalog", "current_date", "current_role", "current_schema", "current_time",
    "current_timestamp", "current_user", "dec", "decimal", "default", "deferrable", "desc",
    "distinct", "do", "else", "end", "except", "exists", "extract", "false", "fetch", "float",
    "for", "foreign", "freeze", "from", "full", "grant", "greatest", "group", "grouping", "having",
    "ilike", "in", "initially", "inner", "inout", "int", "integer", "intersect", "interval",
    "into", "is", "isnull", "join", "json", "json_array", "json_arrayagg", "json_exists",
    "json_object", "json_objectagg", "json_query", "json_scalar", "json_serialize", "json_table",
    "json_value", "lateral", "leading", "least", "left", "like", "limit", "localtime",
    "localtimestamp", "merge_action", "national", "natural", "nchar", "none", "normalize", "not",
    "notnull", "null", "nullif", "numeric", "offset", "on", "only", "or", "order", "out", "outer",
    "overlaps", "overlay", "placing", "position", "precision", "primary", "real", "references",
    "returning", "right", "row", "select", "session_user", "setof", "similar", "smallint", "some",
    "substring", "symmetric", "system_user", "table", "tablesample", "then", "time", "timestamp",
    "to", "trailing", "treat", "trim", "true", "union", "unique", "user", "using", "values",
    "varchar", "variadic", "verbose", "when", "where", "window", "with", "xmlattributes",
    "xmlconcat", "xmlelement", "xmlexists", "xmlforest", "xmlnamespaces", "xmlparse", "xmlpi",
    "xmlroot", "xmlserialize", "xmltable",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_sorted() {
        assert!(RESERVED.is_sorted());
        assert!(is_reserved("user") && !is_reserved("status"));
    }
}
