/** `loader-process.ts CID SOCKET` loads a model through the loader library and prints {seconds, path}, from open() to the path. */
import { open } from '../../src/loader/index.ts'

const [cid = '', socket = ''] = process.argv.slice(2)
const started = performance.now()
await using model = await open(cid, { socket })
const path = await model.path()
console.log(JSON.stringify({ seconds: (performance.now() - started) / 1000, path }))
