// 0.8.3 takes `Archive` from its tar library by name, which Node does not find in a CommonJS module: without this, no
// space can be exported or imported outside a browser.

const ours = new URL('./tar.mjs', import.meta.url).href;

export const resolve = (name, context, next) =>
  name === '@obsidize/tar-browserify' && context.parentURL !== ours
    ? { url: ours, shortCircuit: true }
    : next(name, context);
