// Empty on purpose: the real package downloads a native image library that no peer of ours needs.
module.exports = {};
