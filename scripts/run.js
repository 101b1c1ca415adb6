// Runs a script of this package, or mocha: `npm run` puts the bundled runtime first on the PATH, so the Node that runs
// this is new enough unless none was bundled for this machine. Plain JavaScript, for any Node from 14 on.
import { spawn } from 'child_process'
import { existsSync } from 'fs'
import { dirname, join } from 'path'
import { fileURLToPath } from 'url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const [script, ...args] = process.argv.slice(2)
const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 22 || (major === 22 && minor < 18) || (major === 23 && minor < 6)) {
  console.error('shoal needs Node 22.18 or newer (found v' + process.versions.node + '); run npm ci in the checkout or install a newer Node')
  process.exit(1)
}
const tool = join(root, 'node_modules', script, 'bin', script + '.js')
const child = spawn(process.execPath, [existsSync(tool) ? tool : join(root, script)].concat(args), { cwd: process.cwd(), stdio: 'inherit' })
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => { if (signal !== 'SIGINT') child.kill(signal) })
child.on('exit', (code, signal) => { process.exit(signal === null ? code : signal === 'SIGINT' ? 130 : 1) })
