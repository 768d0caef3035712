//! The declaration of settings; each is written once.

/// Declares settings as a struct: its table, its fields and how they are read.
///
/// ```
/// use std::time::Duration;
///
/// service_kit::settings! {
///     /// How events are collected.
///     #[derive(Debug)]
///     pub struct Collecting {
///         /// Events in a batch at most; more of them need more memory.
///         #[setting(BATCH_EVENTS_MAX, "batch-events-max", default = "10000")]
///         pub events_max: u64 = in_range(1..=1_000_000),
///         /// Longest time that an event waits for its batch.
///         #[setting(BATCH_AGE_MS_MAX, "batch-age-ms-max", default = "500")]
///         pub age_max: Duration = duration_ms,
///         /// Password of the store.
///         #[secret(STORE_PASSWORD, "store-password")]
///         pub password: Option<service_kit::Secret> = secret,
///     }
/// }
/// assert_eq!(Collecting::BATCH_AGE_MS_MAX.flag, "batch-age-ms-max");
/// assert_eq!(Collecting::table().len(), 3);
/// ```
///
/// A field is one of these:
///
/// - `#[setting(NAME, "flag", default = "…")]`: one setting, with its name in the environment, its flag
///   without dashes, and its default, if it has one. The field's documentation is the help text.
///   After the type comes the method of [`Settings`](crate::Settings) that reads the setting, with
///   further arguments; without a method it is [`parse`](crate::Settings::parse).
/// - `#[secret(NAME, "flag")]`: the same for a value that must never be printed and may be in a file.
/// - `#[settings(table)]`: several settings that are declared elsewhere. After the type comes the
///   function that reads them; it gets the [`Settings`](crate::Settings) as its last argument.
/// - `#[fixed(value)]`: no setting, but a part of the struct.
///
/// The struct gets a constant of each setting's name, and these functions:
///
/// - `table()`: every setting in the order of the fields;
/// - `load(settings)`: every field, or [`Recorded`](crate::settings::Recorded) after all of their
///   problems were recorded;
/// - `load_as(named, settings)`: the same with other names or defaults, which the function `named`
///   returns.
#[macro_export]
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        $vis:vis struct $Name:ident {
            $(
                $(#[doc = $help:literal])+
                $(#[setting $setting:tt])?
                $(#[secret $secret:tt])?
                $(#[settings $table:tt])?
                $(#[fixed $value:tt])?
                $field_vis:vis $field:ident: $type:ty
                    $(= $($reader:ident)::+ $(($($argument:expr),* $(,)?))?)?,
            )+
        }
    ) => {
        $(#[$attribute])*
        $vis struct $Name {
            $($(#[doc = $help])+ $field_vis $field: $type,)+
        }

        impl $Name {
            $($crate::settings! {
                @constant ($vis) [$($help),+]
                $(setting $setting)? $(secret $secret)? $(settings $table)? $(fixed $value)?
            })+

            /// Every setting that is read here, in the order of the fields.
            $vis fn table() -> ::std::vec::Vec<$crate::Setting> {
                [$($crate::settings! {
                    @table
                    $(setting $setting)? $(secret $secret)? $(settings $table)? $(fixed $value)?
                }),+].concat()
            }

            /// Reads every setting; problems are recorded in `settings`.
            $vis fn load(
                settings: &mut $crate::Settings<'_>,
            ) -> ::std::result::Result<Self, $crate::settings::Recorded> {
                Self::load_as(::std::convert::identity, settings)
            }

            /// Reads every setting under the name and with the default that `named` gives it.
            $vis fn load_as(
                _named: fn($crate::Setting) -> $crate::Setting,
                settings: &mut $crate::Settings<'_>,
            ) -> ::std::result::Result<Self, $crate::settings::Recorded> {
                // All are read before the first problem ends this, so that all are recorded.
                $(let $field: ::std::result::Result<$type, $crate::settings::Recorded> =
                    $crate::settings! {
                    @load settings _named [$($($reader)::+ $(($($argument),*))?)?]
                    $(setting $setting)? $(secret $secret)? $(settings $table)? $(fixed $value)?
                };)+
                ::std::result::Result::Ok(Self { $($field: $field?),+ })
            }
        }
    };

    (@constant ($vis:vis) [$($help:literal),+] setting $about:tt) => {
        $crate::settings! { @constant ($vis) [$($help),+] false $about }
    };
    (@constant ($vis:vis) [$($help:literal),+] secret $about:tt) => {
        $crate::settings! { @constant ($vis) [$($help),+] true $about }
    };
    (
        @constant ($vis:vis) [$($help:literal),+]
        $secret:literal ($key:ident, $flag:literal $(, default = $default:literal)?)
    ) => {
        $(#[doc = $help])+
        $vis const $key: $crate::Setting = $crate::Setting {
            key: ::std::stringify!($key),
            flag: $flag,
            default: $crate::settings!(@default $($default)?),
            // Each line of the documentation begins with a space.
            help: ::std::concat!($($help),+).trim_ascii_start(),
            secret: $secret,
        };
    };
    (@constant $vis:tt $help:tt settings $table:tt) => {};
    (@constant $vis:tt $help:tt fixed $value:tt) => {};

    (@default) => { ::std::option::Option::None };
    (@default $default:literal) => { ::std::option::Option::Some($default) };

    (@table setting ($key:ident $($rest:tt)*)) => { ::std::vec![Self::$key] };
    (@table secret ($key:ident $($rest:tt)*)) => { ::std::vec![Self::$key] };
    (@table settings ($table:expr)) => { $table };
    (@table fixed $value:tt) => { ::std::vec::Vec::<$crate::Setting>::new() };

    (@load $settings:ident $named:ident [] $kind:ident ($key:ident, $($rest:tt)*)) => {
        $settings.parse(&$named(Self::$key))
    };
    (@load $settings:ident $named:ident [$($path:ident)::+ ($($argument:expr),*)] settings $table:tt) => {
        $($path)::+($($argument,)* $settings)
    };
    (
        @load $settings:ident $named:ident [$reader:ident $(($($argument:expr),*))?]
        $kind:ident ($key:ident, $($rest:tt)*)
    ) => {
        $settings.$reader(&$named(Self::$key) $($(, $argument)*)?)
    };
    (@load $settings:ident $named:ident [] fixed ($value:expr)) => {
        ::std::result::Result::Ok($value)
    };
}
