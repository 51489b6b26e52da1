//! GetXdbcTypeInfo: the SQL types of results. Power BI reads no table without it.

use std::sync::LazyLock;

use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode as Subcode};

use crate::status::{Fault, Result};

/// All types, with the names of `names.rs`.
pub(crate) fn types() -> Result<&'static XdbcTypeInfoData> {
    static TYPES: LazyLock<Option<XdbcTypeInfoData>> = LazyLock::new(|| {
        let mut builder = XdbcTypeInfoDataBuilder::new();
        rows().into_iter().for_each(|row| builder.append(row));
        builder.build().ok()
    });
    TYPES.as_ref().ok_or_else(|| Fault::internal("the list of types cannot be made"))
}

fn rows() -> Vec<XdbcTypeInfo> {
    use XdbcDataType as T;
    let mut rows = vec![
        plain("BOOLEAN", T::XdbcBit, 1),
        integer("TINYINT", T::XdbcTinyint, 3, false),
        integer("SMALLINT", T::XdbcSmallint, 5, false),
        integer("INTEGER", T::XdbcInteger, 10, false),
        integer("BIGINT", T::XdbcBigint, 19, false),
        integer("TINYINT UNSIGNED", T::XdbcTinyint, 3, true),
        integer("SMALLINT UNSIGNED", T::XdbcSmallint, 5, true),
        integer("INTEGER UNSIGNED", T::XdbcInteger, 10, true),
        integer("BIGINT UNSIGNED", T::XdbcBigint, 20, true),
        floating("REAL", T::XdbcReal, 24),
        floating("DOUBLE", T::XdbcDouble, 53),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".into(), "scale".into()]),
            unsigned_attribute: Some(false),
            auto_increment: Some(false),
            minimum_scale: Some(0),
            maximum_scale: Some(76),
            num_prec_radix: Some(10),
            ..plain("DECIMAL", T::XdbcDecimal, 76)
        },
        text("VARCHAR"),
        text("JSON"),
        plain_quoted("UUID", T::XdbcVarbinary, 16),
        XdbcTypeInfo {
            literal_prefix: Some("X'".into()),
            literal_suffix: Some("'".into()),
            ..plain("VARBINARY", T::XdbcVarbinary, i32::MAX)
        },
        // ODBC's subcode of a date is 1, which Flight SQL calls YEAR.
        XdbcTypeInfo {
            minimum_scale: None,
            maximum_scale: None,
            ..temporal("DATE", T::XdbcDate, 10, Subcode::XdbcSubcodeYear)
        },
        temporal("TIME", T::XdbcTime, 18, Subcode::XdbcSubcodeTime),
        temporal("TIMESTAMP", T::XdbcTimestamp, 29, Subcode::XdbcSubcodeTimestamp),
        temporal(
            "TIMESTAMP WITH TIME ZONE",
            T::XdbcTimestamp,
            35,
            Subcode::XdbcSubcodeTimestampWithTimezone,
        ),
        XdbcTypeInfo {
            interval_precision: Some(9),
            datetime_subcode: Some(Subcode::XdbcSubcodeUnknown),
            ..plain_quoted("INTERVAL", T::XdbcInterval, 40)
        },
    ];
    // Types that ODBC and JDBC have no number for.
    rows.extend(["ARRAY", "MAP", "NULL", "STRUCT", "UNION"].map(|name| XdbcTypeInfo {
        column_size: None,
        searchable: Searchable::None,
        ..plain(name, T::XdbcUnknownType, 0)
    }));
    rows
}

fn plain(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        column_size: Some(size),
        literal_prefix: None,
        literal_suffix: None,
        create_params: None,
        nullable: Nullable::NullabilityNullable,
        case_sensitive: false,
        searchable: Searchable::Full,
        unsigned_attribute: None,
        fixed_prec_scale: false,
        auto_increment: None,
        local_type_name: Some(name.to_owned()),
        minimum_scale: None,
        maximum_scale: None,
        sql_data_type: data_type,
        datetime_subcode: None,
        num_prec_radix: None,
        interval_precision: None,
    }
}

fn plain_quoted(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some("'".into()),
        literal_suffix: Some("'".into()),
        ..plain(name, data_type, size)
    }
}

fn integer(name: &str, data_type: XdbcDataType, digits: i32, unsigned: bool) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(unsigned),
        auto_increment: Some(false),
        minimum_scale: Some(0),
        maximum_scale: Some(0),
        num_prec_radix: Some(10),
        ..plain(name, data_type, digits)
    }
}

fn floating(name: &str, data_type: XdbcDataType, bits: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        num_prec_radix: Some(2),
        ..plain(name, data_type, bits)
    }
}

fn text(name: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        create_params: Some(vec!["length".into()]),
        case_sensitive: true,
        ..plain_quoted(name, XdbcDataType::XdbcVarchar, i32::MAX)
    }
}

fn temporal(
    name: &str,
    data_type: XdbcDataType,
    characters: i32,
    subcode: Subcode,
) -> XdbcTypeInfo {
    XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: Some(subcode),
        minimum_scale: Some(0),
        maximum_scale: Some(9),
        ..plain_quoted(name, data_type, characters)
    }
}

#[cfg(test)]
mod tests;
