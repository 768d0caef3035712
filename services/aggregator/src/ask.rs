//! Sends requests to routes, for tests.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header::CONTENT_TYPE},
};
use tower::ServiceExt as _;

/// Status, media type and text of the response to a GET request.
pub(crate) async fn ask(routes: Router, path: &str) -> (u16, String, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = routes.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let media_type = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap());
    let media_type = media_type.unwrap_or_default().to_owned();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, media_type, String::from_utf8(body.to_vec()).unwrap())
}
