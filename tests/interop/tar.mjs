// The tar library of 0.8.3, with `Archive` under its name; see resolve.mjs.

import tar from '@obsidize/tar-browserify';

export const { Archive } = tar;
