"""Small mapping tables from other event formats to the product's own events; `registry` names them."""
