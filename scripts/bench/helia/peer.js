/**
 * One side of the Helia comparison: `node peer.js seed DIR FILE` adds FILE (1 MiB chunks, blockstore-fs) and prints
 * {cid, multiaddr}; `node peer.js load DIR CID MULTIADDR` fetches it into its blockstore and prints {seconds, bytes}.
 * TCP, Noise and Yamux on loopback, Bitswap; no DHT, relay or HTTP, which could only slow it down.
 */
import { open } from 'node:fs/promises'
import { withBitswap } from '@helia/bitswap'
import { withLibp2pLight } from '@helia/libp2p'
import { unixfs } from '@helia/unixfs'
import { identify } from '@libp2p/identify'
import { noise } from '@chainsafe/libp2p-noise'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { FsBlockstore } from 'blockstore-fs'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'

const [role, directory, what, address] = process.argv.slice(2)
const blockstore = new FsBlockstore(directory)
await blockstore.open()
const helia = withBitswap(withLibp2pLight(createHeliaLight({ blockstore }), {
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() }
}))
await helia.start()
const fs = unixfs(helia)

if (role === 'seed') {
  const handle = await open(what)
  const cid = await fs.addByteStream(handle.createReadStream({ highWaterMark: 1024 * 1024 }), { chunker: fixedSize({ chunkSize: 1024 * 1024 }), rawLeaves: true })
  console.log(JSON.stringify({ cid: cid.toString(), multiaddr: helia.libp2p.getMultiaddrs()[0].toString() }))
  process.on('SIGTERM', () => process.exit(0))
} else {
  await helia.libp2p.dial(multiaddr(address))
  const started = performance.now()
  let bytes = 0
  for await (const chunk of fs.cat(CID.parse(what))) bytes += chunk.length
  console.log(JSON.stringify({ seconds: (performance.now() - started) / 1000, bytes }))
  await helia.stop()
  process.exit(0)
}
