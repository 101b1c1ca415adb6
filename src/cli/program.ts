import { Command } from 'commander'
import { packageVersion } from '../base/version.ts'
import { addAdd } from './commands/add.ts'
import { addCompletion } from './commands/completion.ts'
import { addDaemon } from './commands/daemon.ts'
import { addDoctor } from './commands/doctor.ts'
import { addDrain } from './commands/drain.ts'
import { addExport } from './commands/export.ts'
import { addGc } from './commands/gc.ts'
import { addGet } from './commands/get.ts'
import { addInvite } from './commands/invite.ts'
import { addLink, addLinks, addUnlink } from './commands/link.ts'
import { addLs } from './commands/ls.ts'
import { addPeers } from './commands/peers.ts'
import { addPin, addUnpin } from './commands/pin.ts'
import { addPs } from './commands/ps.ts'
import { addRm } from './commands/rm.ts'
import { addShow } from './commands/show.ts'
import { addStatus } from './commands/status.ts'
import { addStop } from './commands/stop.ts'
import { addVerify } from './commands/verify.ts'
import type { GlobalOptions } from './context.ts'

const EXAMPLES = `
Examples:
  shoal daemon                             run a node; the first start makes its identity and swarm key
  shoal add /models/llama-3-8b             publish a model; prints its CID
  shoal invite                             print what another host needs to join
  SHOAL_JOIN=shoal1... shoal daemon        join that swarm
  shoal get CID --output ./llama-3-8b      load a model from the swarm
  shoal status                             what runs, and what is wrong
  shoal stop                               end the daemon; what it holds stays

Environment:
  SHOAL_DATA       the data directory, when --data is not given
  SHOAL_API        the API socket, when neither --api nor --data is given
  SHOAL_JOIN       invites to join, for the daemon
  SHOAL_CONFIG     a configuration file, for the daemon
  SHOAL_SET_*      one configuration key each: SHOAL_SET_STORAGE_QUOTA=500GiB

Exit codes:
  0 done, 1 failed, 2 wrong usage or configuration, 3 not found or no provider,
  4 verification failed, 5 no daemon, 130 interrupted`

/** The whole command line. Global options may stand before or after the command. */
export function createProgram (): Command {
  const program = new Command('shoal')
    .description('Gets AI model weights onto the machines that use them, and keeps them there, with no master.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .option('--data <dir>', 'data directory (default: $SHOAL_DATA, else the XDG data directory)')
    .option('--api <path>', 'socket of the daemon (default: api.sock in the data directory)')
    .option('--json', 'answers, progress and errors as JSON')
    .option('--quiet', 'no progress and no notes, only the answer')
    .helpOption('-h, --help', 'print help')
    .addHelpText('after', EXAMPLES)
    .configureHelp({ showGlobalOptions: true })
    // Errors are told in one place, errors.ts. Help that stands for one is for people.
    .configureOutput({ outputError: () => undefined, writeErr: text => { if (program.opts<GlobalOptions>().json !== true) process.stderr.write(text) } })
    .exitOverride()
  for (const add of [addDaemon, addInvite, addAdd, addGet, addExport, addLink, addLinks, addUnlink, addLs, addShow, addPs, addPeers, addStatus, addDoctor, addVerify, addPin, addUnpin, addDrain, addRm, addGc, addStop, addCompletion]) add(program)
  return program
}
