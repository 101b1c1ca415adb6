// Two nodes in one process: one adds a model, the other loads it. Run with: node docs/examples/two-nodes.ts DIR
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createNode, decodeInvite } from 'shoal'

const root = await mkdtemp(join(tmpdir(), 'shoal-example-'))
const listen = ['/ip4/127.0.0.1/tcp/0']

const publisher = await createNode({ dataDirectory: join(root, 'publisher'), settings: { listen } })
const { cid, files, bytes } = await publisher.add(process.argv[2] ?? 'docs')
console.log(`added ${files} files, ${bytes} bytes: ${cid}`)

const { addresses, swarmKey } = decodeInvite(publisher.invite())
const loader = await createNode({ dataDirectory: join(root, 'loader'), swarmKey, settings: { listen, join: addresses } })
const { path, seconds, peers } = await loader.load(cid, {
  onProgress: ({ bytesDone, bytesTotal }) => { process.stderr.write(`\r${bytesDone} of ${bytesTotal} bytes`) }
})
console.log(`\nloaded into ${path} in ${seconds.toFixed(2)} s from`, peers)

await Promise.all([publisher.stop(), loader.stop()])
await rm(root, { recursive: true })
