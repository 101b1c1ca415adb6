/** Part of `npm run prepare`: the command line of an installed package, in dist/program. */
import { rm } from 'node:fs/promises'
import { at, bundleCli } from './lib/bundle.ts'

const directory = at('dist/program')
await rm(directory, { recursive: true, force: true })
await bundleCli(directory)
