/**
 * One side of the iroh-blobs comparison, as a persistent node on loopback without discovery or relay addresses in what
 * it hands out. `node peer.js seed DIR FILE` references FILE in place and prints {hash, nodeId, address};
 * `node peer.js load DIR` prints {ready: true}, takes {hash, nodeId, address} as a line on stdin, downloads into its
 * store and prints {done: true}. Every chunk group is verified against the BLAKE3 tree, as iroh-blobs always does.
 */
import { createInterface } from 'node:readline'
import iroh from '@number0/iroh'

const { BlobDownloadOptions, Iroh, SetTagOption } = iroh
const [role, directory, file] = process.argv.slice(2)
const node = await Iroh.persistent(directory, { ipv4Addr: '127.0.0.1:0', nodeDiscovery: 'None' })
const say = message => { process.stdout.write(`${JSON.stringify(message)}\n`) }

if (role === 'seed') {
  const hash = await new Promise((resolve, reject) => {
    node.blobs.addFromPath(file, true, SetTagOption.auto(), { wrap: false }, (error, progress) => {
      if (error !== null) reject(error)
      else if (progress.allDone !== undefined && progress.allDone !== null) resolve(progress.allDone.hash)
    }).catch(reject)
  })
  const address = await node.net.nodeAddr()
  const [direct] = address.addresses.filter(one => one.startsWith('127.'))
  say({ hash, nodeId: address.nodeId, address: direct ?? (await node.node.status()).listenAddrs.find(one => one.startsWith('127.')) })
  // The node lives as long as somebody holds it.
  setInterval(() => node, 60_000)
} else {
  say({ ready: true })
  createInterface({ input: process.stdin }).once('line', line => {
    const { hash, nodeId, address } = JSON.parse(line)
    const options = new BlobDownloadOptions('Raw', [{ nodeId, addresses: [address] }], SetTagOption.auto())
    node.blobs.download(hash, options, (error, progress) => {
      if (error !== null) { console.error(error); process.exit(1) }
      if (progress.allDone !== undefined && progress.allDone !== null) say({ done: true })
    }).catch(error => { console.error(error); process.exit(1) })
  })
}
