import assert from 'node:assert/strict'
import { askAtOnce } from '../support/ask-at-once.ts'

const NODES = 50

describe('origin: a large swarm', function () {
  this.timeout(600_000)

  for (const [mesh, name] of [['full', 'that all know each other'], ['one', 'that have only just met']] as const) {
    it(`costs the Hub one copy when ${NODES} nodes ask at once ${name}`, async () => {
      // Sockets: in memory a message is a microtask, and so many nodes keep the process from its timers for many seconds.
      const copies = await askAtOnce({ nodes: NODES, transport: 'tcp', mesh, timeoutMs: 500_000 })
      process.stdout.write(`      ${copies.toFixed(4)} copies\n`)
      assert.ok(copies <= 1.05, `${copies} copies`)
    })
  }
})
